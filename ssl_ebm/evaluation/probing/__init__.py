"""Probes: what a frozen representation says about labels that it was not trained on, and how it is spread."""

from ssl_ebm.evaluation.probing.attentive import AttentivePooling, attentive_probe
from ssl_ebm.evaluation.probing.callbacks import (
    AttentiveProbe,
    KNNProbe,
    LinearProbe,
    Probe,
    RegressionProbe,
)
from ssl_ebm.evaluation.probing.features import extract
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.monitors import CollapseMonitor, OnlineProbe
from ssl_ebm.evaluation.probing.probes import knn_probe, linear_probe, regression_probe
from ssl_ebm.evaluation.probing.results import Classified, Regressed, Samples
from ssl_ebm.evaluation.probing.spread import alignment, deviation, lidar, rank_me, uniformity

__all__ = [
    "AttentivePooling",
    "AttentiveProbe",
    "Classified",
    "CollapseMonitor",
    "Frozen",
    "KNNProbe",
    "LinearProbe",
    "OnlineProbe",
    "Probe",
    "Regressed",
    "RegressionProbe",
    "Samples",
    "alignment",
    "attentive_probe",
    "deviation",
    "extract",
    "knn_probe",
    "lidar",
    "linear_probe",
    "rank_me",
    "regression_probe",
    "uniformity",
]
