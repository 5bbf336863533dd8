"""Command line of patchkit, installed as `patchkit_cli`."""
