"""Waitress on a UNIX socket, fitted to one trusted peer that sends and fetches whole layers.

`sockets` makes the listening socket, `channel` extends waitress by its own class attributes,
`body` is the request body that still arrives while it is read, `dispatcher` says which thread
serves a request and `turns` which stream is worked on, `notify` talks to systemd, and `run` puts
them together.  Nothing here knows a driver or a message; `manuka.api` does.
"""
