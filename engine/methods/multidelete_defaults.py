"""What each kind of task has where a request sets nothing of MultiDelete.

Benchmarks find a run by the values that it has here, and not by this file: a change of one kind's
defaults leaves the runs of the others valid. So there is nothing here but values and the choice.
"""

from dataclasses import replace

from engine.methods.multidelete_params import TaskDefaults
from engine.spec import Modality, Update
from engine.tasks import Task

GRAPHS = TaskDefaults(
    alpha=12.0,
    beta=20.0,
    gamma=2.0,
    similarity=0.0,
    kept_similarity=0.0,
    mismatched=0.5,
    learning_rate=1e-3,
    retain_ratio=4.0,
    neighbours=0,
    held_out=1.0,
    epochs=50,
    least_steps=300,
    target=13.0,
    singly=False,
    healing=0.0,
)
# Where encoders stand still, steps cost little and the few weights that move must go far.
GRAPHS_BY_FUSION = replace(
    GRAPHS, alpha=15.0, learning_rate=1e-2, epochs=120, least_steps=600, target=25.0
)
# An image has many pairs, and its model says "contradiction" or "false" of nearly every other
# combination: what it says of these is held with more weight, and encoders may move more. Thousands
# of deleted pairs need twelve passes: fewer retained pairs a step pay for a part of them.
IMAGES = replace(
    GRAPHS,
    alpha=15.0,
    gamma=0.3,
    mismatched=2.0,
    learning_rate=6e-4,
    retain_ratio=2.0,
    epochs=12,
    least_steps=600,
    target=25.0,
)
IMAGES_BY_FUSION = replace(IMAGES, learning_rate=2e-3)
# More passes moved pairs of two images no farther, a harder push did.
TWO_IMAGES = replace(IMAGES, alpha=30.0, target=22.0)
TWO_IMAGES_BY_FUSION = replace(IMAGES_BY_FUSION, alpha=30.0, target=22.0)
# What ranks in retrieval is a similarity: it is decoupled and retained as well. Drawings of the same
# thing with nearly the same words drift with the deleted ones, unless they are held. A hard push costs
# the ranking much, and what it costs comes back sooner than the deleted pairs do: so the run ends
# with passes that heal, from deeper than it needs. Most pairs are forgotten soon and a few late: each
# is pushed only as long as it needs it.
RANKING = TaskDefaults(
    alpha=6.0,
    beta=20.0,
    gamma=0.1,
    similarity=1.0,
    kept_similarity=30.0,
    mismatched=1.0,
    learning_rate=6e-4,
    retain_ratio=2.0,
    neighbours=2,
    held_out=1.0,
    epochs=12,
    least_steps=120,
    target=3.0,
    singly=True,
    healing=0.25,
)
# Under -F healing lifts the deleted pairs faster: two passes of twelve are enough.
RANKING_BY_FUSION = replace(RANKING, learning_rate=2e-3, least_steps=240, healing=0.17)


def defaults(task: Task | type[Task], modality: Modality, update: Update) -> TaskDefaults:
    """Return what stands in for the nulls of the parameters.

    Args:
        task: what the model is trained for.
        modality: of its items.
        update: what may change.
    """
    if task.contrastive:
        found = RANKING, RANKING_BY_FUSION
    elif modality == "graph":
        found = GRAPHS, GRAPHS_BY_FUSION
    elif task.items_per_pair > 1:
        found = TWO_IMAGES, TWO_IMAGES_BY_FUSION
    else:
        found = IMAGES, IMAGES_BY_FUSION
    return found[0] if update == "all" else found[1]
