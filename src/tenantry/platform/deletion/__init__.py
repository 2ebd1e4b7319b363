"""Deleting tenants: the grace time, the purge and its certificate."""

from tenantry.kernel.feature import Feature
from tenantry.platform.deletion.controller import CertificateController, DeletionController
from tenantry.platform.deletion.models import PurgeCertificate

FEATURE = Feature(name="deletion", controllers=(DeletionController, CertificateController), models=(PurgeCertificate,))
