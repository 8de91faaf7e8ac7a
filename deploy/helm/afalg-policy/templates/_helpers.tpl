{{/* The names are fixed: a cluster has one installation, in a namespace of its own. */}}
{{- define "name" }}afalg-policy{{ end }}

{{/* Changes with the policy, so that the pods do, and an old pod keeps its own. */}}
{{- define "policy" }}afalg-policy-policy-{{ .Values.policy | sha256sum | trunc 10 }}{{ end }}

{{- define "labels" -}}
app.kubernetes.io/name: afalg-policy
app.kubernetes.io/part-of: afalg-policy
{{- end }}

{{/* A digest names one image for ever, a tag whatever the registry says. */}}
{{- define "image" }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else if and .Values.image.tag .Values.image.unpinned }}
{{- printf "%s:%s" .Values.image.repository .Values.image.tag }}
{{- else if .Values.image.tag }}
{{- fail "image.tag: a tag names no fixed image, and this one would be root on each node: set image.digest, or image.unpinned=true for a trial" }}
{{- else }}
{{- fail "image.digest is missing: set it to the sha256:… of the image, as the release says" }}
{{- end }}
{{- end }}

{{/* What a container of ours is allowed unless it says why it needs more. */}}
{{- define "confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Where the image has the program. */}}
{{- define "program" }}/afalg-policy{{ end }}

{{/* A sidecar: it runs before the container that is probed starts, and after it ended. */}}
{{- define "agent" -}}
- name: agent
  restartPolicy: Always
  image: {{ include "image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [{{ include "program" . }}]
  args:
    - agent
    - /etc/afalg-policy/policy.yaml
    - --nri={{ .Values.nri.directory }}/nri.sock
    - --listen=/run/afalg-policy/agent.sock
    - --hand-over=/run/afalg-policy/hand-over.sock
    {{- if .Values.podMonitor.enabled }}
    - --metrics=0.0.0.0:9138
  ports:
    - name: metrics
      containerPort: 9138
    {{- end }}
  # What is probed next must find it at work.
  startupProbe:
    exec:
      command: [{{ include "program" . }}, node, answers, /run/afalg-policy/agent.sock]
    periodSeconds: 1
    timeoutSeconds: 10
    failureThreshold: 120
  securityContext:
    {{- include "confined" . | nindent 4 }}
    # NRI's socket belongs to root, and runtimes accept an agent of root alone.
    runAsUser: 0
    runAsGroup: 0
    capabilities:
      drop: [ALL]
      add:
        # To read an address in the memory of a container, and to identify the caller.
        - SYS_PTRACE
        # To read executables whose digest a rule names.
        - DAC_READ_SEARCH
        # To end a refused container, whatever its user.
        - KILL
        {{- range .Values.nri.capabilities }}
        # To make the sockets of 32-bit programs (socketcall: broker).
        - {{ . }}
        {{- end }}
    # It makes the sockets of AF_ALG that the policy allows: the runtime's profile
    # would refuse them.
    seccompProfile:
      type: Unconfined
    # The runtime's profile refuses to look into processes of other containers.
    appArmorProfile:
      type: Unconfined
    # The same with SELinux.
    seLinuxOptions:
      type: spc_t
  resources:
    {{- toYaml .Values.nri.resources | nindent 4 }}
  volumeMounts:
    - name: policy
      mountPath: /etc/afalg-policy
      readOnly: true
    # To register with containerd.
    - name: nri
      mountPath: {{ .Values.nri.directory }}
      readOnly: true
    # The sockets for runtimes, by the path that profiles name, and for the next pod.
    - name: run
      mountPath: /run/afalg-policy
    # Proofs, for the next pod and the next boot. Only root may write there, so that no
    # emptyDir will do.
    - name: proofs
      mountPath: /var/cache/afalg-policy
{{- end }}

{{/* Writes the profiles and ends. */}}
{{- define "profiles" -}}
- name: profiles
  image: {{ include "image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [{{ include "program" . }}]
  args:
    - install
    - kubernetes
    - --root=/host
    - --policy=/etc/afalg-policy/policy.yaml
    {{- if .Values.files.acceptGranted }}
    - --accept=granted-profiles
    {{- end }}
  {{- include "root-of-files" . | nindent 2 }}
    # By itself it is a file: a link would lead out of /host.
    - name: policy
      mountPath: /host/etc/afalg-policy/policy.yaml
      subPath: policy.yaml
      readOnly: true
{{- end }}

{{/* What writing into the kubelet's directory takes. */}}
{{- define "root-of-files" -}}
securityContext:
  {{- include "confined" . | nindent 2 }}
  # The directories belong to root; no capability is needed.
  runAsUser: 0
  runAsGroup: 0
  capabilities:
    drop: [ALL]
  seccompProfile:
    type: RuntimeDefault
  # A confined container may not write to the kubelet's files.
  seLinuxOptions:
    type: spc_t
resources:
  requests: {cpu: 10m, memory: 64Mi}
  limits: {memory: 768Mi}
volumeMounts:
  # The profiles.
  - name: profiles
    mountPath: /host/var/lib/kubelet/seccomp
  # What was there before, for the removal.
  - name: records
    mountPath: /host/var/lib/afalg-policy
{{- end }}

{{/* Installs on the node, or takes that back, and ends. */}}
{{- define "install" -}}
{{- $files := and (eq .Values.mode "remove") (eq .Values.remove.from "files") -}}
- name: {{ .Values.mode | replace "host" "install" }}
  image: {{ include "image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [{{ include "program" . }}]
  {{- if eq .Values.mode "remove" }}
  args: [node, remove, --root=/host]
  {{- else }}
  args:
    - node
    - install
    - --root=/host
    {{- range .Values.host.platforms }}
    - {{ . }}
    {{- end }}
  {{- end }}
  {{- if $files }}
  {{- include "root-of-files" . | nindent 2 }}
  {{- else }}
  securityContext:
    # It changes the configuration of the runtime and has systemd restart it: that
    # is root of the node, and no list of capabilities would make it less.
    privileged: true
    readOnlyRootFilesystem: true
    # What it writes belongs to root.
    runAsUser: 0
    runAsGroup: 0
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 1Gi}
  volumeMounts:
    # The node: what is installed, and its systemd, below /run.
    - name: host
      mountPath: /host
      mountPropagation: HostToContainer
    {{- if ne .Values.mode "remove" }}
    - name: policy
      mountPath: /etc/afalg-policy
      readOnly: true
    {{- end }}
  {{- end }}
{{- end }}
