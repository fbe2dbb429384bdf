"""Graph to layers: the architecture that was stored, and weights that are matched to one.

``stored.py`` asks who says what the layers were, ``keras_objects.py`` and ``tables.py`` read what tf.keras keeps of a
model in a SavedModel, ``candidates.py`` names what may be a weight in a graph, and ``matching.py`` finds whose it is.
"""

from modelio.lifting.stored import lift

__all__ = ["lift"]
