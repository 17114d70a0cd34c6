"""How to read the figures of confidence; see `captions`."""

CONFIDENCE: dict[str, str] = {
    "ranking": (
        "What the model states (diamonds) counts as self-knowledge only right of the dashed line, with its whole "
        "interval of the difference. A circle there while the diamonds are not: the model holds more than it says."
    ),
    "reliability": (
        "Calibration is not knowledge: always stating the share that is right is calibrated, and tells nothing. "
        "Marks that are spread from left to right along the dashed line do both."
    ),
    "risk": (
        "A useful confidence starts low at the left and rises to the share that is wrong of all answers; one that "
        "starts high is surest where it errs."
    ),
    "depth": (
        "Where right answers are agreed on earlier than wrong ones, agreement of the blocks is a sign of knowing; "
        "where both curves coincide, it tells nothing of being right."
    ),
}
