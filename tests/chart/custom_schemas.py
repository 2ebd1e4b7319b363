"""Custom resources, as far as the chart uses them: whatever is not here is an error.

After the definitions of Prometheus' operator 0.85, KEDA 2.17, the Gateway API 1.3 and External Secrets 0.17.
"""

from __future__ import annotations

from typing import Any

__all__ = ("CUSTOM",)

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "integer", "minimum": 0}
YES_OR_NO: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": r"^(0|([0-9]+(\.[0-9]+)?(ms|h|m|s|d|w|y))+)$"}
GATEWAY_DURATION: Schema = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
HOST: Schema = {
    "type": "string",
    "maxLength": 253,
    "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def some(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


def resource(spec: Schema) -> Schema:
    metadata = record({"name": TEXT, "labels": TEXTS}, {"namespace": TEXT, "annotations": TEXTS})
    return record({"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": spec})


SELECTOR = record(
    {},
    {
        "matchLabels": TEXTS,
        "matchExpressions": some(
            record(
                {"key": TEXT, "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}}, {"values": some(TEXT)}
            )
        ),
    },
)
KEY_OF_SECRET = record({"name": TEXT, "key": TEXT}, {"optional": YES_OR_NO})
RELABELING = record(
    {},
    {
        "sourceLabels": some(TEXT),
        "separator": TEXT,
        "targetLabel": TEXT,
        "regex": TEXT,
        "replacement": {"type": "string"},
        "action": {"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep", "hashmod"]},
    },
)
SCRAPE = record(
    {"port": TEXT},
    {
        "path": TEXT,
        "scheme": {"enum": ["http", "https"]},
        "interval": DURATION,
        "scrapeTimeout": DURATION,
        "honorLabels": YES_OR_NO,
        "authorization": record({"credentials": KEY_OF_SECRET}, {"type": TEXT}),
        "relabelings": some(RELABELING),
        "metricRelabelings": some(RELABELING),
    },
)
MONITOR = {
    "jobLabel": TEXT,
    "namespaceSelector": record({}, {"any": YES_OR_NO, "matchNames": some(TEXT)}),
    "sampleLimit": NUMBER,
    "podTargetLabels": some(TEXT),
}
RULE = record(
    {"alert": TEXT, "expr": TEXT},
    {"for": DURATION, "keep_firing_for": DURATION, "labels": TEXTS, "annotations": TEXTS},
)
BEHAVIOUR = record(
    {},
    {
        "stabilizationWindowSeconds": NUMBER,
        "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
        "policies": some(
            record({"type": {"enum": ["Pods", "Percent"]}, "value": NUMBER, "periodSeconds": NUMBER}),
        ),
    },
)
SCALED_OBJECT = record(
    {
        "scaleTargetRef": record({"name": TEXT}, {"apiVersion": TEXT, "kind": TEXT, "envSourceContainerName": TEXT}),
        "triggers": some(
            record(
                {"type": TEXT, "metadata": TEXTS},
                {
                    "name": TEXT,
                    "metricType": {"enum": ["AverageValue", "Value", "Utilization"]},
                    "useCachedMetrics": YES_OR_NO,
                    "authenticationRef": record(
                        {"name": TEXT}, {"kind": {"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}}
                    ),
                },
            )
        ),
    },
    {
        "pollingInterval": NUMBER,
        "cooldownPeriod": NUMBER,
        "initialCooldownPeriod": NUMBER,
        "idleReplicaCount": NUMBER,
        "minReplicaCount": NUMBER,
        "maxReplicaCount": NUMBER,
        "fallback": record({"failureThreshold": NUMBER, "replicas": NUMBER}, {"behavior": TEXT}),
        "advanced": record(
            {},
            {
                "restoreToOriginalReplicaCount": YES_OR_NO,
                "horizontalPodAutoscalerConfig": record(
                    {}, {"name": TEXT, "behavior": record({}, {"scaleUp": BEHAVIOUR, "scaleDown": BEHAVIOUR})}
                ),
            },
        ),
    },
)
PARENT = record({"name": TEXT}, {"group": TEXT, "kind": TEXT, "namespace": TEXT, "sectionName": TEXT, "port": NUMBER})
MATCH = record(
    {},
    {
        "path": record({"type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]}, "value": TEXT}),
        "method": TEXT,
        "headers": some(record({"name": TEXT, "value": TEXT}, {"type": {"enum": ["Exact", "RegularExpression"]}})),
    },
)
ROUTE = record(
    {"backendRefs": some(record({"name": TEXT, "port": NUMBER}, {"group": TEXT, "kind": TEXT, "weight": NUMBER}))},
    {
        "name": TEXT,
        "matches": some(MATCH),
        "filters": some({"type": "object", "required": ["type"]}),
        "timeouts": record({}, {"request": GATEWAY_DURATION, "backendRequest": GATEWAY_DURATION}),
    },
)
EXTERNAL_SECRET = record(
    {
        "secretStoreRef": record({"name": TEXT}, {"kind": {"enum": ["SecretStore", "ClusterSecretStore"]}}),
        "target": record(
            {"name": TEXT},
            {
                "creationPolicy": {"enum": ["Owner", "Orphan", "Merge", "None"]},
                "deletionPolicy": {"enum": ["Delete", "Merge", "Retain"]},
                "template": {"type": "object"},
            },
        ),
    },
    {
        "refreshInterval": DURATION,
        "refreshPolicy": {"enum": ["CreatedOnce", "Periodic", "OnChange"]},
        "data": some(
            record({"secretKey": TEXT, "remoteRef": record({"key": TEXT}, {"property": TEXT, "version": TEXT})})
        ),
        "dataFrom": some(record({"extract": record({"key": TEXT}, {"property": TEXT, "version": TEXT})})),
    },
)

CUSTOM: dict[tuple[str, str], Schema] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): resource(
        record({"selector": SELECTOR, "endpoints": some(SCRAPE)}, MONITOR)
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): resource(
        record({"selector": SELECTOR, "podMetricsEndpoints": some(SCRAPE)}, MONITOR)
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): resource(
        record({"groups": some(record({"name": TEXT, "rules": some(RULE)}, {"interval": DURATION}))})
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): resource(SCALED_OBJECT),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): resource(
        record({}, {"secretTargetRef": some(record({"parameter": TEXT, "name": TEXT, "key": TEXT}))})
    ),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): resource(
        record({"parentRefs": some(PARENT), "rules": some(ROUTE)}, {"hostnames": some(HOST)})
    ),
    ("external-secrets.io/v1", "ExternalSecret"): resource(EXTERNAL_SECRET),
}
"""By apiVersion and kind."""
