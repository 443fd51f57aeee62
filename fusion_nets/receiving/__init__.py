"""A DICOM node that fuses what it is sent: network, spool, rules, sending."""

from .counters import Counters, telling
from .journal import Journal, Pair
from .node import Tls, listening
from .polling import Orthanc
from .receiver_settings import Settings
from .rules import Facts, Rule, Wanted, pairs_by, read_rules
from .sending import Destination, SendError, destination
from .service import Receiver, receive
from .spool import Identity, Refusal, Refused, Spool, identify

__all__ = [
    "Counters",
    "Destination",
    "Facts",
    "Identity",
    "Journal",
    "Orthanc",
    "Pair",
    "Receiver",
    "Refusal",
    "Refused",
    "Rule",
    "SendError",
    "Settings",
    "Spool",
    "Tls",
    "Wanted",
    "destination",
    "identify",
    "listening",
    "pairs_by",
    "read_rules",
    "receive",
    "telling",
]
