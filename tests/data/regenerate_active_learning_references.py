"""Writes ``active_learning_references.json``: what modAL and scikit-activeml say about the same class vectors.

They are no dependencies of the project; run this in an environment of its own::

    python3 -m venv /tmp/references && /tmp/references/bin/pip install modAL-python==0.4.2.1 scikit-activeml==1.0.1
    /tmp/references/bin/python tests/data/regenerate_active_learning_references.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from modAL.disagreement import consensus_entropy
from modAL.uncertainty import classifier_entropy, classifier_margin, classifier_uncertainty
from skactiveml.pool import average_kl_divergence, vote_entropy


class Given:
    """A classifier (or committee) whose probabilities are given."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict_proba(self, X, **_):
        return self.probabilities


def main() -> None:
    rng = np.random.default_rng(2024)
    members = rng.dirichlet(np.full(5, 0.6), size=(3, 12))
    members[:, 0] = np.eye(5)[2]  # certain, and of one mind
    members[:, 1] = 0.2  # knows nothing
    members[:, 2] = np.eye(5)[:3]  # certain, and of three minds
    one = Given(members[0])
    presence = rng.integers(0, 2, size=(20, 4))
    presence[0], presence[1] = 0, 1
    record = {
        "made_with": {name: version(name) for name in ("modAL-python", "scikit-activeml", "numpy")},
        "members": members.tolist(),
        "modal_classifier_uncertainty": classifier_uncertainty(one, members[0]).tolist(),
        "modal_classifier_margin": classifier_margin(one, members[0]).tolist(),
        "modal_classifier_entropy": classifier_entropy(one, members[0]).tolist(),
        "modal_consensus_entropy": consensus_entropy(Given(members.mean(axis=0)), members[0]).tolist(),
        "skactiveml_average_kl_divergence": average_kl_divergence(members.copy(), eps=1e-300).tolist(),
        "presence_votes": presence.tolist(),
        "skactiveml_vote_entropy": vote_entropy(presence, classes=[0, 1]).tolist(),
    }
    target = Path(__file__).with_name("active_learning_references.json")
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
