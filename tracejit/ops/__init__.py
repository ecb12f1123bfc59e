"""The op table. Importing this package registers every row."""

from tracejit.ops import activation as activation
from tracejit.ops import contraction as contraction
from tracejit.ops import convolution as convolution
from tracejit.ops import elementwise as elementwise
from tracejit.ops import indexing as indexing
from tracejit.ops import leaves as leaves
from tracejit.ops import library as library
from tracejit.ops import movement as movement
from tracejit.ops import nn as nn
from tracejit.ops import padding as padding
from tracejit.ops import random as random
from tracejit.ops import reductions as reductions
from tracejit.ops import scan as scan
from tracejit.ops import sorting as sorting
from tracejit.ops import windows as windows
from tracejit.ops.table import OPS as OPS
from tracejit.ops.table import Family as Family
