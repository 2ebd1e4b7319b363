"""Operators."""

from tenantry.kernel.feature import Feature
from tenantry.platform.operators.controller import OperatorAuthController, OperatorController
from tenantry.platform.operators.models import Operator

FEATURE = Feature(name="operators", controllers=(OperatorAuthController, OperatorController), models=(Operator,))
