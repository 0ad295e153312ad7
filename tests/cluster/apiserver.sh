# shellcheck shell=bash
# The flags which the API servers and controller managers of both tiers have in common. Sourced by init.sh and api.sh.

# apiserver_flags PKI AUDIT_POLICY LOG_DIRECTORY: sets the array apiserver_flags
apiserver_flags() {
  local pki=$1
  apiserver_flags=(
    --service-cluster-ip-range="$services4,$services6" --allow-privileged=true --profiling=false
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt"
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --anonymous-auth=true
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
    --proxy-client-cert-file="$pki/front-client.crt" --proxy-client-key-file="$pki/front-client.key"
    --requestheader-client-ca-file="$pki/front-ca.crt" --requestheader-allowed-names=front-proxy-client
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
    --requestheader-extra-headers-prefix=X-Remote-Extra-
    --audit-policy-file="$2" --audit-log-path="$3/audit.log" --audit-log-maxsize=50 --audit-log-maxbackup=4
  )
}

# controllers_flags PKI KUBECONFIG SCRATCH_DIRECTORY: sets the array controllers_flags
controllers_flags() {
  local pki=$1
  controllers_flags=(
    --kubeconfig="$2" --authentication-kubeconfig="$2" --authorization-kubeconfig="$2"
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt"
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key"
    --use-service-account-credentials=true --allocate-node-cidrs=false
    # else it makes /usr/libexec/kubernetes on the host
    --flex-volume-plugin-dir="$3"
    # the default of 20 requests a second makes the first seconds of a new cluster slow
    --kube-api-qps=300 --kube-api-burst=600
    --service-cluster-ip-range="$services4,$services6" --leader-elect=false --bind-address=127.0.0.1
  )
}
