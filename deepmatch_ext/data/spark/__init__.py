"""Events and users that are too many for one machine, on Spark: ids, splits, windows and recommendations.

Needs PySpark and Java. Recommendations need this package, TensorFlow and the export's folder on every executor.
"""

from deepmatch_ext.data.spark.prepared import PreparedEvents, SparkSplit, prepare, write_windows
from deepmatch_ext.data.spark.recommendations import recommend

__all__ = ["PreparedEvents", "SparkSplit", "prepare", "recommend", "write_windows"]
