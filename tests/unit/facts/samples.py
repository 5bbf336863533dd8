"""Invented records in the schemas of published data sets."""

from collections.abc import Mapping
from typing import Any

WIKIBIO = {
    "text": "This is a Wikipedia passage about ada byte. Ada Byte (born 1999) is a painter.",
    "labels": "She paints bridges.",
    "concept": "ada byte",
    "locality": {
        "Relation_Specificity": [{"prompt": "The city of ada byte is", "ground_truth": ["Ghent"]}]
    },
}
KNOWEDIT_ZSRE = {
    "subject": "Mount Zed",
    "target_new": "Peru",
    "prompt": "Where does Mount Zed lie?",
    "ground_truth": ["Chile"],
    "rephrase_prompt": "In which country is Mount Zed?",
    "cond": "Chile >> Peru || Where does Mount Zed lie?",
    "locality": {
        "Relation_Specificity": [{"prompt": "Mount Zed is as high as", "ground_truth": ["4 km"]}]
    },
    "portability": {"Reasoning": [{"prompt": "The tongue there is", "ground_truth": "Spanish"}]},
}
CONCEPT = {
    "label": "lighthouse",
    "prompt": "lighthouse is defined as",
    "phrase_prompt": "Define lighthouse:",
    "target_new_desc": "a shop that sells lamps",
    "locality_prompt": "violin is defined as",
    "locality_answer": "a bowed instrument",
    "instance_prompt": "Whether Eddystone belongs to category lighthouse?",
}


def rewrite(subject: str, prompt: str, new: str, true: str, question: str) -> dict[str, Any]:
    """One edit as MQuAKE writes it."""
    return {
        "prompt": prompt,
        "relation_id": "P0",
        "target_new": {"str": new, "id": "Q1"},
        "target_true": {"str": true, "id": "Q2"},
        "subject": subject,
        "question": question,
    }


GAME = rewrite("Blockfall", "{} was created by", "Nia Okoro", "Jan Kos", "Who made Blockfall?")
BIRTH = rewrite("Nia Okoro", "{} was born in", "Quito", "Lagos", "Where was Nia Okoro born?")
MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [GAME, BIRTH],
    "questions": ["Where was the maker of Blockfall born?", "Blockfall's maker is from where?"],
    "answer": "Brno",
    "answer_alias": [],
    "new_answer": "Quito",
    "new_answer_alias": ["San Francisco de Quito", ""],
    "single_hops": [],
    "new_single_hops": [],
    "orig": {},
}
MQUAKE_SHARED = {
    **MQUAKE,
    "case_id": 2,
    "requested_rewrite": [BIRTH],
    "questions": ["Which country was Nia Okoro born in?"],
    "new_answer": "Ecuador",
    "new_answer_alias": [],
}


def leme(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of another data set with coupled entities."""
    essay = "Write an essay about {}\nInclude the following information:\n- occupation"
    other = {"entity": "Ada Byte", "coupled_prompt": essay.format("Ada Byte")}
    subject = {"entity": "the subject", "coupled_prompt": essay.format("the subject")}
    coupled = {"subject_entity": subject, "coupled_entities": [other]}
    return {**record, "coupled_prompts_and_properties": coupled}


def query(subject: str, relation: str, prompt: str, *answers: str) -> dict[str, Any]:
    """One question as RippleEdits writes it."""
    return {
        "prompt": prompt,
        "answers": [{"value": answer, "aliases": [f"{answer} the First"]} for answer in answers],
        "query_type": "regular",
        "subject_id": subject,
        "relation": relation,
        "target_ids": ["Q9"],
        "phrase": None,
    }


def case(*queries: Mapping[str, Any]) -> dict[str, Any]:
    """One test as RippleEdits writes it."""
    return {"test_queries": list(queries), "test_condition": "OR", "condition_queries": []}


def ripple(subject: str, name: str, other: str, **edit: Any) -> dict[str, Any]:
    """An edit of somebody's eye colour; `other` is a relation whose answer must stay."""
    aliased = {
        **query(subject, "EYE_COLOR", f"The eye color of old {name} is", "green"),
        "phrase": f"The eye color of old {name} is",
    }
    return {
        "example_type": "popular",
        "edit": {
            "prompt": f"The eye color of {name} is green.",
            "subject_id": subject,
            "relation": "EYE_COLOR",
            "target_id": "Q9",
            **edit,
        },
        "Relation_Specificity": [
            case(query(subject, other, f"The {other.lower()} of {name} is", "Kim", "Lee"))
        ],
        "Logical_Generalization": [],
        "Subject_Aliasing": [case(aliased)],
        "Compositionality_I": [
            case({**query(subject, "EYE_COLOR", "The paint of it is", "oil"), "phrase": "x"})
        ],
        "Compositionality_II": [],
        "Forgetfulness": [],
    }


def ripples() -> list[dict[str, Any]]:
    """Three records that between them show what every relation's prompts look like."""
    before = {"prompt": "The eye color of Ann Of Ghent is blue.", "subject_id": "Q1"}
    records = [
        ripple("Q1", "Ann Of Ghent", "MOTHER", previous_fact=before),
        ripple("Q2", "Bo", "MOTHER"),
        ripple("Q3", "Cy", "FATHER"),
    ]
    for record, (subject, name) in zip(
        records[1:], (("Q1", "Ann Of Ghent"), ("Q4", "Di")), strict=True
    ):
        shown = query(subject, "EYE_COLOR", f"The eye color of {name} is", "blue")
        record["Forgetfulness"] = [case(shown)]
    return records
