"""The nouns. Frozen pydantic models with ids derived from content, so the same input always gets the same id.

Every stage hands on one kind of these records as JSON Lines; `tpo.store` writes and reads them.
"""

from tpo.records.evaluation import NOT_ASKED as NOT_ASKED
from tpo.records.evaluation import Condition as Condition
from tpo.records.evaluation import GateDecision as GateDecision
from tpo.records.evaluation import GateRule as GateRule
from tpo.records.evaluation import Item as Item
from tpo.records.evaluation import Method as Method
from tpo.records.evaluation import NeedleShown as NeedleShown
from tpo.records.evaluation import Prediction as Prediction
from tpo.records.evaluation import PredictionStatus as PredictionStatus
from tpo.records.evaluation import Prompt as Prompt
from tpo.records.evaluation import Role as Role
from tpo.records.evaluation import Task as Task
from tpo.records.pairs import Answer as Answer
from tpo.records.pairs import BlindCheck as BlindCheck
from tpo.records.pairs import Branch as Branch
from tpo.records.pairs import Granularity as Granularity
from tpo.records.pairs import PreferencePair as PreferencePair
from tpo.records.pairs import Query as Query
from tpo.records.pairs import QuestionType as QuestionType
from tpo.records.pairs import Review as Review
from tpo.records.pairs import ReviewVerdict as ReviewVerdict
from tpo.records.pairs import Verdict as Verdict
from tpo.records.record import Record as Record
from tpo.records.record import content_id as content_id
from tpo.records.rejection import Checked as Checked
from tpo.records.rejection import Reason as Reason
from tpo.records.rejection import Rejection as Rejection
from tpo.records.video import Caption as Caption
from tpo.records.video import Distractor as Distractor
from tpo.records.video import Segment as Segment
from tpo.records.video import Video as Video
from tpo.records.video import View as View
from tpo.records.video import ViewKind as ViewKind
