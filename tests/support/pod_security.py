"""The Pod Security Standard `restricted`, with `baseline` in it, as Kubernetes documents it for version 1.34.

https://kubernetes.io/docs/concepts/security/pod-security-standards/; rules for Windows pods are left out: we have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_SECCOMP = {"RuntimeDefault", "Localhost"}
_APPARMOR = {None, "RuntimeDefault", "Localhost"}
_SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip


def violations(pod: dict[str, Any], annotations: dict[str, str] | None = None) -> list[str]:
    """Return what `restricted` forbids in a pod's spec, a line each."""
    return [*_of_the_pod(pod, annotations or {}), *_of_the_containers(pod)]


def _of_the_pod(pod: dict[str, Any], annotations: dict[str, str]) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes") or []:
        for kind in set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    for key, profile in annotations.items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and (
            profile != "runtime/default" and not profile.startswith("localhost/")
        ):
            yield f"AppArmor {profile}"
    for sysctl in (pod.get("securityContext") or {}).get("sysctls") or []:
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"


def _of_the_containers(pod: dict[str, Any]) -> Iterator[str]:
    of_pod = pod.get("securityContext") or {}
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind) or []:
            context = container.get("securityContext") or {}
            for fault in (*_of_a_context(of_pod, context), *_of_the_host(container)):
                yield f"{container['name']}: {fault}"


def _of_a_context(of_pod: dict[str, Any], context: dict[str, Any]) -> Iterator[str]:
    def effective(key: str) -> Any:
        return context.get(key, of_pod.get(key))

    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if effective("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if 0 in {of_pod.get("runAsUser"), context.get("runAsUser")}:
        yield "runAsUser 0"
    if (effective("seccompProfile") or {}).get("type") not in _SECCOMP:
        yield "seccompProfile"
    yield from _of_mandatory_control(of_pod, context)


def _of_mandatory_control(of_pod: dict[str, Any], context: dict[str, Any]) -> Iterator[str]:
    if (context.get("appArmorProfile") or of_pod.get("appArmorProfile") or {}).get("type") not in _APPARMOR:
        yield "appArmorProfile"
    for options in (of_pod.get("seLinuxOptions") or {}, context.get("seLinuxOptions") or {}):
        if options.get("type") not in _SELINUX or options.get("user") or options.get("role"):
            yield "seLinuxOptions"
    if context.get("procMount") not in {None, "Default"}:
        yield "procMount"


def _of_the_host(container: dict[str, Any]) -> Iterator[str]:
    if any(port.get("hostPort") for port in container.get("ports") or []):
        yield "hostPort"
    asked = [container.get(key) or {} for key in ("livenessProbe", "readinessProbe", "startupProbe")]
    asked += (container.get("lifecycle") or {}).values()
    for probe in asked:
        if any((probe.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe names a host"
