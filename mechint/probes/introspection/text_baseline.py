"""What can be told of answers from the text alone: logistic regression on TF-IDF, carriers kept apart."""

import numpy as np
import pandas as pd

from mechint.probes.introspection.battery import CONCEPT, MENTION, NONE, OTHER
from mechint.probes.introspection.cells import Cells
from mechint.prompts.introspection import Material
from mechint.prompts.introspection.material import YES

_FOLDS = 5


def text_only(cells: Cells, material: Material) -> pd.DataFrame:
    """Predict from its tokens whether yes was said to "detect": plain and mentioning texts, injected and not.

    Half of the texts mention a concept, and half have one injected, whether they mention one or not: the text tells
    everything of answers that come from it, and nothing of those that come from the state. One row: accuracy on
    carriers that were not learnt from, and that of always saying the more frequent answer.
    """
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    texts: list[tuple[int, ...]] = []
    said: list[bool] = []
    groups: list[int] = []
    for arm in (NONE, CONCEPT, MENTION, OTHER):
        answers = cells.said("detect", arm, YES)
        for k, concept in enumerate(cells.concepts):
            other = cells.concepts[(k + 1) % len(cells.concepts)]
            mention = {MENTION: concept, OTHER: other}.get(arm)
            for c, carrier in enumerate(cells.carriers):
                texts.append(material.asked("detect", carrier, mention).tokens)
                said.append(bool(answers[k, c]))
                groups.append(carrier)
    y, size = np.array(said), 1 + max(max(tokens) for tokens in texts)
    majority = float(max(y.mean(), 1 - y.mean()))
    if majority == 1.0:
        return pd.DataFrame([{"accuracy": 1.0, "majority": 1.0, "n": len(y)}])
    counts = np.array([np.bincount(tokens, minlength=size) for tokens in texts])
    reader = make_pipeline(TfidfTransformer(), LogisticRegression(max_iter=2000))
    folds = GroupKFold(n_splits=min(_FOLDS, len(cells.carriers)))
    predicted = np.asarray(cross_val_predict(reader, counts, y, groups=groups, cv=folds))
    return pd.DataFrame([{"accuracy": float(np.mean(predicted == y)), "majority": majority, "n": len(y)}])
