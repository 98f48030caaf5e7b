"""The commands of ``manuka``, one module each; `manuka.cli` has the table of them.

A module named like its command (with ``_`` for ``-``) offers

- ``DESCRIPTION`` and ``EXAMPLES``: texts for ``--help``,
- ``add_arguments(parser)``: its arguments,
- ``run(arguments)``: the work; returns the exit code, or raises ManukaError or OSError, which
  `manuka.cli` words in one line.

A new command is such a module and a line in `manuka.cli.COMMANDS`.  `arguments` has what several
of them accept, `drivers` finds a driver by its name.

Easy to get wrong: importing at the top.  Modules here are thin and import what they need when
they run, so that help is quick and ``serve`` starts with nothing but Bottle and waitress.
"""
