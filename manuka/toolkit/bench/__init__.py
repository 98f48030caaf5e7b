"""The benchmark: the engine's own overlay2, Manuka, and a plugin in Go, measured in turns.

``manuka bench`` is `run`.  What it is made of:

- `disk`: ext4 in loop files in memory, one a contender, in a mount namespace of its own;
- `contender`: an engine each, on its driver;  `docker`: what is asked of it;
  `archives`: the images that it is given;
- `scenarios`: what is measured on the engines;  `wire`, `wireclient`, `native`: the same calls
  as an engine makes them, straight to the plugins;  `costs`, `processes`: memory and CPU;
  `growth`: how all that grows;
- `turns`: who measures when;  `rows`: every figure's name and bar;  `stats`, `results`;
- `table`, `markdown`, `chart`: the report;  `machine`: where it was made.

Easy to get wrong: a figure that waits for less than the user does.  A layer that is deleted after
the answer, or pages that are written after it, belong to somebody's time: before each measurement
the contender's disk is synced, and a run is over when its container is removed.
"""
