"""Facts for property tests."""

from hypothesis import strategies as st

from patchkit.facts.fact import Fact, MultiHop, Probe

characters = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
line = st.text(characters, min_size=1, max_size=20).filter(
    lambda text: bool(text.strip()) and "{}" not in text
)
subject = line.filter(lambda text: "{}" not in text.strip())
prompt = st.tuples(line | st.just(""), line | st.just("")).map("{}".join)
lines = st.lists(line, max_size=3).map(tuple)
asked = st.builds(Probe, line, line, lines, st.none() | line)
cases = st.builds(MultiHop, lines.filter(bool), line, lines, lines)


def facts() -> st.SearchStrategy[Fact]:
    """Any fact that can be made, with derived and with given ids."""
    return st.builds(
        Fact,
        subject,
        prompt.filter(lambda text: text.count("{}") == 1),
        line,
        st.none() | line,
        lines,
        st.lists(st.builds(Probe, line, st.none() | line), max_size=3).map(tuple),
        st.lists(asked, max_size=3).map(tuple),
        st.just("") | line,
        st.lists(asked, max_size=3).map(tuple),
        st.lists(cases, max_size=2).map(tuple),
        lines,
        st.none() | line,
    )
