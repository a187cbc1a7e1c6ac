"""The one judge: every question of an exam to a contender, and a verdict on every answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradref.judge import state
from gradref.judge.batches import BatchExam
from gradref.judge.elementwise import ElementwiseExam
from gradref.judge.evidence import Evidence, Explain
from gradref.judge.gates import Gate
from gradref.judge.questions import Answer, Contender, Quantity, Question
from gradref.judge.rows import RowsExam
from gradref.judge.verdict import ORDER_OF, Status, Verdict

Exam = ElementwiseExam | RowsExam | BatchExam


@dataclass(frozen=True)
class Trial:
    """A contender before its judge: what it is held to, and who answers beside it."""

    contender: Contender
    gate: Gate
    witnesses: Sequence[Contender]
    orders: Sequence[int] = (0, 1, 2)
    finish: Callable[[Evidence, list[Question]], Evidence] = lambda evidence, asked: evidence
    explain: Explain | None = None

    def verdicts(self, exam: Exam) -> Iterator[Verdict]:
        """Yield a verdict on every quantity that the contender has, for every way to ask."""
        for quantity, questions in exam.questions():
            if ORDER_OF[quantity.role] not in self.orders:
                continue
            others: dict[str, list[Tensor]] | None = None
            for way in self.contender.ways(exam.record, quantity):
                asked = [self.contender.as_asked(question, way) for question in questions]
                is_same = all(a is b for a, b in zip(asked, questions, strict=True))
                if others is None or not is_same:
                    others = self._witnessed(asked)
                yield from self._judge(exam, quantity, asked, way, others)
                others = others if is_same else None

    def _judge(
        self,
        exam: Exam,
        quantity: Quantity,
        asked: list[Question],
        way: str,
        others: dict[str, list[Tensor]],
    ) -> Iterator[Verdict]:
        name, case = self.contender.name, exam.case
        answers = [self.contender.answer(question, way) for question in asked]
        if bent := ", ".join(state.changes()):
            words = f"the process that judges was changed, no verdict: {bent}"
            yield Verdict.without_result(name, case, quantity.name, "fail", words)
            return
        missing = next((a for a in answers if a.problem or a.unsupported), None)
        if missing is None:
            missing = next((m for m in map(malformed, asked, answers) if m is not None), None)
        if missing is not None:
            words = missing.unsupported or missing.problem
            status: Status = "unsupported" if missing.unsupported else "fail"
            yield Verdict.without_result(name, case, quantity.name, status, words)
            return
        got = [answer.result for answer in answers if answer.result is not None]
        evidence = exam.evidence(quantity, asked, name, got, others, self.gate)
        for part in self.finish(evidence, asked).parts():
            yield part.verdict(self.explain)

    def _witnessed(self, asked: list[Question]) -> dict[str, list[Tensor]]:
        """Return the results of the witnesses that have the quantity, in the dtype of the case."""
        found: dict[str, list[Tensor]] = {}
        if asked[0].dtype != asked[0].case.torch_dtype:
            return found
        for witness in self.witnesses:
            ways = witness.ways(asked[0].record, asked[0].quantity)
            if not ways:
                continue
            answers = [witness.answer(question, ways[0]) for question in asked]
            if all(answer.result is not None for answer in answers):
                found[witness.name] = [a.result for a in answers if a.result is not None]
        return found


def wanted_shape(question: Question) -> tuple[int, ...]:
    """Return the shape of the answer: of all rows, or of all chunks together."""
    q, s = question.quantity, question.sample
    if q.role == "value" and q.reduction != "none":
        return (len(s.chunks()),)
    if q.role in ("value", "jvp", "jacobian_diagonal"):
        return tuple(s.grad_output.shape)
    first = s.arrays[q.wrt or question.record.arguments[0]]
    if q.role.startswith("jacobian"):  # but of the diagonal, above
        return (*s.grad_output.shape, first.shape[-1])
    if q.wrt in question.record.shared:
        return (len(s.chunks()) * len(first),)
    if q.reduction != "none" and s.columns > 1:
        return (len(first) // s.columns, s.columns)
    return tuple(first.shape)


def malformed(question: Question, answer: Answer) -> Answer | None:
    """Return what is wrong with the form of a result; None if nothing."""
    result, wants = answer.result, wanted_shape(question)
    if result is None:
        return Answer(problem="returns None")
    if tuple(result.shape) != wants:
        return Answer(problem=f"returns shape {tuple(result.shape)}, wants {wants}")
    if result.dtype != question.dtype:
        words = f"returns {result.dtype}, wants {question.dtype}".replace("torch.", "")
        return Answer(problem=words)
    return None
