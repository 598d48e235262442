"""The routes of scheduled tasks; what they mean is the scheduler's business."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from nanoclaw_runtime.api.guard import PREFIX
from nanoclaw_runtime.api.task_schemas import NewTask, TaskChange, TaskList, TaskRunList, TaskRunView, TaskView
from nanoclaw_runtime.controller.scheduler import Scheduler
from nanoclaw_runtime.domain.tasks import TaskState


def router(scheduler: Scheduler) -> APIRouter:
    router = APIRouter()

    @router.get("/tasks")
    async def tasks(group: Annotated[str | None, Query()] = None) -> TaskList:
        """Of one group or of all, oldest first."""
        return TaskList(tasks=[TaskView.of(task) for task in await scheduler.list(group)])

    @router.post("/groups/{folder}/tasks", status_code=201)
    async def add(folder: str, task: NewTask, response: Response) -> TaskView:
        added = await scheduler.create(
            folder, prompt=task.prompt, kind=task.kind, value=task.value, context=task.context
        )
        response.headers["Location"] = f"{PREFIX}/tasks/{added.id}"
        return TaskView.of(added)

    @router.get("/tasks/{task}")
    async def show(task: str) -> TaskView:
        return TaskView.of(await scheduler.get(task))

    @router.patch("/tasks/{task}")
    async def change(task: str, wanted: TaskChange) -> TaskView:
        """A new schedule begins now, also for a task that was over."""
        state = None if wanted.state is None else TaskState(wanted.state)
        changed = await scheduler.update(task, prompt=wanted.prompt, kind=wanted.kind, value=wanted.value, state=state)
        return TaskView.of(changed)

    @router.delete("/tasks/{task}", status_code=204)
    async def cancel(task: str) -> None:
        """The task and its log are gone; a run under way goes on."""
        await scheduler.cancel(task)

    @router.post("/tasks/{task}/run", status_code=202)
    async def run(task: str) -> TaskView:
        """Run an active task now, besides its schedule."""
        return TaskView.of(await scheduler.run_now(task))

    @router.get("/tasks/{task}/runs")
    async def runs(task: str, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> TaskRunList:
        return TaskRunList(runs=[TaskRunView.of(run) for run in await scheduler.runs(task, limit)])

    return router
