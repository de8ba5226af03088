"""Where the time of an input went: durations of replies to seconds."""

from google.protobuf import duration_pb2

from seqserve.client.results import Timing
from seqserve.v1 import encoding_pb2, generation_pb2


def to_generation_timing(message: generation_pb2.GenerationTiming) -> Timing:
    """The spans of an input that was generated from or scored."""
    return Timing(
        _seconds(message.queue_duration),
        _seconds(message.encode_duration),
        _seconds(message.decode_duration),
        message.is_cached,
    )


def to_encoding_timing(message: encoding_pb2.EncodingTiming) -> Timing:
    """The spans of an input that was encoded alone; decoding takes no time."""
    return Timing(
        _seconds(message.queue_duration),
        _seconds(message.encode_duration),
        0.0,
        message.is_cached,
    )


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.ToNanoseconds() / 1e9
