"""What can be asked of decisions on record: why, what others would have done, and who was right."""

from millrace.control.hindsight.explained import Question, explain_asked, explain_logged
from millrace.control.hindsight.inquiry import Answer, Candidate
from millrace.control.hindsight.predicted import Errors, Report, report
from millrace.control.hindsight.shadow import Agreement, Compared, Comparisons, agreement, compare

__all__ = [
    "Agreement",
    "Answer",
    "Candidate",
    "Compared",
    "Comparisons",
    "Errors",
    "Question",
    "Report",
    "agreement",
    "compare",
    "explain_asked",
    "explain_logged",
    "report",
]
