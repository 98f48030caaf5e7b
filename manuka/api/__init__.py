"""The plugin interface as the engine speaks it: calls, messages, and the errors among them.

`calls` names the calls, `messages` turns JSON into records, `instance` holds the driver between
them, `routes` ties a call to a method, `replies` checks what the method gave back, and `errors`
is the one place where a fault becomes a reply.  Nothing here knows about sockets;
`manuka.server` does.
"""
