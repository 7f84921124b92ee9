"""A network of namespaces in which the real kernel is tested and the demo runs.

    with Testbed() as bed:
        star = bed.star(receivers=2)
        sender = star.source.sender("232.1.1.1")
        receiver = star.receivers[0].receiver("232.1.1.1")
        sender.send(20)
        receiver.wait(sender)

A namespace is held by a descriptor of this process and by nothing else: whatever way the process ends, nothing stays behind.
Works as root and in a user namespace (`become_able`). Nothing has a name outside, so any number may run side by side.
"""

from tests.testbed.bed import Port, Star, Testbed
from tests.testbed.namespace import Namespace
from tests.testbed.rights import become_able
from tests.testbed.traffic import Capture, Direction, Flow, Receiver, Sender

__all__ = ["Capture", "Direction", "Flow", "Namespace", "Port", "Receiver", "Sender", "Star", "Testbed", "become_able"]
