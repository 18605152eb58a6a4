"""The oracle of a soak: the same training on a server that nothing befalls, in a session of its own."""

from typing import Any

from tests.soak.plan import Story, history

import backwire as bw

SEED = 7


def twin(quiet: bw.Client, story: Story, done: int) -> tuple[int, str]:
    """Returns the step and the digest that the session of the story has after so many deeds."""
    task, results = story.task, list[Any]()
    with quiet.create_session(task.loss, task.optimizer, SEED, durability="memory") as session:
        with session.pipeline() as pipe:
            for deed in history(story.deeds[:done]):
                for each in map(task.batch, deed.batches):
                    if deed.name == "passes":
                        results.append(pipe.backward(pipe.forward(each)))
                        results.append(pipe.step())
                    else:
                        results.append(pipe.train_step(each))
        for result in results:
            result.result()
        return session.info().step, session.digest()
