"""The playground: one page for people, on an HTTP port of its own, and the calls that it makes.

The way of one call: ``listener`` accepts the connection, and shakes hands where the server speaks
TLS (``handshake``); ``connection`` reads the head; ``site`` checks where it comes from (``origin``)
and which method it names (``method``); ``scribe`` makes a message of the body, and JSON of messages
(``message_json``), in threads of the playground's own; ``gateway`` sends it, with the caller's
token and request id, over a channel to a gRPC server of this process (``inner_server``) whose
servicers and interceptors are those of everybody. There is no second path: tokens, rates,
admission, turns, limits, deadlines and metrics are theirs. A browser that leaves cancels its call.
"""
