"""What was set aside and why, and whether data was compared with benchmarks."""

from enum import StrEnum

from tpo.records.record import Record


class Reason(StrEnum):
    """Why something was set aside. The count of each is in the stage's manifest."""

    UNREADABLE = "unreadable"
    NO_VIDEO_STREAM = "no_video_stream"
    EMPTY_FILE = "empty_file"
    PROBE_TIMEOUT = "probe_timeout"
    PROBE_CRASH = "probe_crash"
    PROBE_MEMORY = "probe_memory"
    OUTSIDE_FOLDER = "outside_folder"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"
    TOO_FEW_FRAMES = "too_few_frames"
    TOO_MANY_FRAMES = "too_many_frames"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    STATIC = "static"
    TOO_RESTLESS = "too_restless"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"
    NO_CAPTIONS = "no_captions"
    BAD_CAPTION_FILE = "bad_caption_file"
    CAPTION_OUTSIDE_VIDEO = "caption_outside_video"
    EMPTY_CAPTION = "empty_caption"
    TOO_FEW_CAPTIONS = "too_few_captions"
    NOTHING_TO_ASK = "nothing_to_ask"
    REQUEST_FAILED = "request_failed"
    EMPTY_REPLY = "empty_reply"
    RUNAWAY_REPLY = "runaway_reply"
    REFUSED = "refused"
    BAD_REPLY = "bad_reply"
    BLIND_ANSWERABLE = "blind_answerable"
    NO_VIEW = "no_view"
    OVER_QUOTA = "over_quota"
    OVER_VIDEO_CAP = "over_video_cap"
    TOO_MANY_OF_TYPE = "too_many_of_type"
    LENGTH_BIAS = "length_bias"
    REVIEW_REJECT = "review_reject"
    REVIEW_TIE = "review_tie"
    REVIEW_BAD_QUESTION = "review_bad_question"
    VIDEO_CHANGED = "video_changed"
    DECODE_FAILED = "decode_failed"
    NO_REFERENCE_ANSWER = "no_reference_answer"
    NO_ANSWER_PAIR = "no_answer_pair"
    EMPTY_ANSWER = "empty_answer"
    RUNAWAY_ANSWER = "runaway_answer"
    IDENTICAL_ANSWERS = "identical_answers"
    TIE = "tie"
    NOT_BETTER = "not_better"
    CONFLICT = "conflict"
    INCORRECT = "incorrect"
    ORDER_DISAGREEMENT = "order_disagreement"
    BAD_ROW = "bad_row"
    BAD_ITEM = "bad_item"
    VIDEO_MISSING = "video_missing"
    SUBTITLES_UNUSABLE = "subtitles_unusable"
    NOT_ASKED = "not_asked"


class Rejection(Record):
    """Something that was set aside, by whom and why. `item` names it: a path, or a record id."""

    stage: str
    item: str
    reason: Reason
    detail: str


class Checked(StrEnum):
    """Whether data was compared with benchmarks. No benchmark there is "not checked", never "clean"."""

    CHECKED = "checked"
    PARTLY = "partly checked"
    NOT = "not checked"
