"""Messages to sequences and answers to messages, one servicer for each gRPC service.

Protocol messages never travel past this package.
"""
