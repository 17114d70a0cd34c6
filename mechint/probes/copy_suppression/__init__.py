"""Copy suppression: heads that lower the logit of a token they attend to."""

from mechint.probes.copy_suppression.scan import CopySuppressionScan as CopySuppressionScan
from mechint.probes.copy_suppression.scan import ScanSettings as ScanSettings
from mechint.probes.copy_suppression.scan import copy_suppression as copy_suppression
