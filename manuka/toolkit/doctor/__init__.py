"""Why an engine won't come up on a plugin: ``manuka doctor``.

`patient` gathers what the checks look at, with `discovery` and `processes`; `engine`, `plugin`,
`mounts`, `storage` and `records` are the checks, each a generator of findings; `report` runs them
in order and words the result.  Nothing here changes anything: no check writes, mounts or starts a
thing.

Easy to get wrong: a check that fails itself.  Whatever it cannot see is a finding too, never an
error that hides the findings of the others.
"""
