"""How much there is in the database's catalog, which a schema for each tenant makes grow: measured every night."""

from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.platform.catalog.controller import CatalogController
from tenantry.platform.catalog.jobs import measure_catalog
from tenantry.platform.catalog.models import CatalogStatistic

FEATURE = Feature(
    name="catalog",
    controllers=(CatalogController,),
    models=(CatalogStatistic,),
    jobs=(measure_catalog,),
    schedules=(Schedule(measure_catalog, "15 4 * * *"),),
)
