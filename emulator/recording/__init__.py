"""Record and replay (`docs/recording.md`): a bug that was seen once in a guest becomes a test.

`recorded_card` makes a card whose dealings with its clients go to a file; `replay` does again what the file says, without
any client, and reports the first difference; `redact` removes bytes of others from it.
"""

from vfio_user_xe.emulator.recording.format import RecordingError
from vfio_user_xe.emulator.recording.outcome import Difference, Outcome
from vfio_user_xe.emulator.recording.player import replay
from vfio_user_xe.emulator.recording.redact import Redaction, redact
from vfio_user_xe.emulator.recording.stand_ins import recorded_card

__all__ = ["Difference", "Outcome", "RecordingError", "Redaction", "recorded_card", "redact", "replay"]
