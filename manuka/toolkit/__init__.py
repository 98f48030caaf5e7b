"""What the author of a storage driver runs: a private engine, checks, traces, a first skeleton.

Each module here is one tool and can be used as a library; `manuka.commands` gives each a command.
"""
