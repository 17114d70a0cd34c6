"""Intervals, tests and corrections for many statistics side by side, with observations that come in clusters.

Values are a table of one row a prompt and one column a statistic (a head, say); NaN marks "not defined here".
Prompts of one cluster are drawn, or change sign, together, because they are not independent.
"""

from mechint.statistics.bootstrap import bootstrap_mean as bootstrap_mean
from mechint.statistics.bootstrap import bootstrap_median as bootstrap_median
from mechint.statistics.bootstrap import bootstrap_ratio as bootstrap_ratio
from mechint.statistics.clusters import Clusters as Clusters
from mechint.statistics.confidence import Brier as Brier
from mechint.statistics.confidence import aurc as aurc
from mechint.statistics.confidence import brier as brier
from mechint.statistics.confidence import calibration_error as calibration_error
from mechint.statistics.confidence import risk_coverage as risk_coverage
from mechint.statistics.corrections import benjamini_yekutieli as benjamini_yekutieli
from mechint.statistics.corrections import holm as holm
from mechint.statistics.estimate import Estimate as Estimate
from mechint.statistics.estimate import estimate_mean as estimate_mean
from mechint.statistics.estimate import wilson as wilson
from mechint.statistics.faithfulness import Faithfulness as Faithfulness
from mechint.statistics.faithfulness import faithful_calibration as faithful_calibration
from mechint.statistics.partial import partial_spearman as partial_spearman
from mechint.statistics.permutation import Alternative as Alternative
from mechint.statistics.permutation import draws_p as draws_p
from mechint.statistics.permutation import label_permutation_test as label_permutation_test
from mechint.statistics.permutation import max_sign_flip_test as max_sign_flip_test
from mechint.statistics.permutation import mcnemar_p as mcnemar_p
from mechint.statistics.permutation import sign_flip_test as sign_flip_test
from mechint.statistics.seeds import derive_seed as derive_seed
from mechint.statistics.seeds import generator as generator
