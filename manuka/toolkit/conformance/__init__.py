"""The conformance kit: checks for any graphdriver plugin, over its socket alone.

A *check* is a function ``check_…`` in a module ``check_GROUP.py`` here, run by pytest; its name is
the sentence that it proves.  It carries the rule that it stands for::

    @needed("A layer that does not exist can be removed.", ENGINE_LAYERS)
    def check_removing_an_unknown_layer_is_no_error(client: Client) -> None:
        client.remove(new_id())

``needed`` is what an engine relies on, ``choice`` what a driver may do otherwise: such a check
that does not hold is told as "differs" and fails nothing.

- `rules`: the two marks, and where rules come from
- `kit`: the plugin under check, its home, and the guard beside it
- `layers`: what checks do with layers; cleans up after each
- `plugin`: how pytest runs the checks; `report`: what is shown of it
- `words`: what went wrong, for authors in any language
- `specimen`: a tree with one of everything
- `limits`: the time that a check has; `signals`: what ends a run

Neighbours: `manuka.toolkit.conform` is the command, `manuka.toolkit.client` speaks to the socket.
Easy to get wrong: a check must not know how a driver stores layers.  All that it may look at is
replies, the folder that Get names, and that nothing changed outside.
"""
