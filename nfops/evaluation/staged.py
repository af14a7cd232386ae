"""Progress of a fold: many stages as one."""

from nfops.progress import OnStep, Step


class Staged:
    """The many stages of a fold as one: how many are done; what goes on now is a note."""

    def __init__(self, on_step: OnStep, stage: str) -> None:
        self._on_step, self._stage = on_step, stage
        self._seen: list[str] = []

    def __call__(self, step: Step) -> None:
        """Pass the step on."""
        if not self._seen or step.stage != self._seen[-1]:
            self._seen.append(step.stage)
        self._on_step(Step(self._stage, len(self._seen) - 1, 0, f"{step.stage} {step.done}/{step.total}"))
