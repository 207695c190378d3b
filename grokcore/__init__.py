"""grokcore: neural collapse and relative flatness, measured exactly on anybody's model."""

from grokcore.agreement import nearest_mean_agreement
from grokcore.batch_cdnv import cdnv
from grokcore.bounds import margin_error_bound
from grokcore.collapse import CollapseReport, LayerReport, collapse_report
from grokcore.collapse_limits import VarianceFloor, transfer_ceiling, variance_floor
from grokcore.curvature import exact_hessian
from grokcore.dependence import Dependence, normalised_hsic
from grokcore.errors import DivergedError, NonFiniteError, ResourceBusyError, UsageError
from grokcore.estimators import Estimate
from grokcore.factorisation import FlattestReparametrisation, flattest_reparametrisation
from grokcore.flatness import frobenius_surrogate, gini_impurity, relative_flatness
from grokcore.geometry import ClassMoments
from grokcore.information import InformationBounds, information_bounds
from grokcore.interventions import Intervention
from grokcore.layer_flatness import layer_relative_flatness
from grokcore.monitor import Monitor
from grokcore.mutual_information import ksg_information, noisy_information
from grokcore.operators import GaussNewtonOperator, HessianOperator
from grokcore.probing import LinearProbe, linear_probe
from grokcore.report import Report, measure
from grokcore.representativeness import GeneralisationGap, generalisation_gap
from grokcore.robustness import RobustnessBound, finite_robustness_bound
from grokcore.stability import FlatnessSandwich, flatness_sandwich
from grokcore.traces import hessian_trace

__version__ = "0.1.0"

__all__ = [
    "ClassMoments",
    "CollapseReport",
    "Dependence",
    "DivergedError",
    "Estimate",
    "FlatnessSandwich",
    "FlattestReparametrisation",
    "GaussNewtonOperator",
    "GeneralisationGap",
    "HessianOperator",
    "InformationBounds",
    "Intervention",
    "LayerReport",
    "LinearProbe",
    "Monitor",
    "NonFiniteError",
    "Report",
    "ResourceBusyError",
    "RobustnessBound",
    "UsageError",
    "VarianceFloor",
    "cdnv",
    "collapse_report",
    "exact_hessian",
    "finite_robustness_bound",
    "flatness_sandwich",
    "flattest_reparametrisation",
    "frobenius_surrogate",
    "generalisation_gap",
    "gini_impurity",
    "hessian_trace",
    "information_bounds",
    "ksg_information",
    "layer_relative_flatness",
    "linear_probe",
    "margin_error_bound",
    "measure",
    "nearest_mean_agreement",
    "noisy_information",
    "normalised_hsic",
    "relative_flatness",
    "transfer_ceiling",
    "variance_floor",
]
