# Targets of the embedded Kubernetes; included by the Makefile, and usable alone: make -f tests/cluster/cluster.mk cluster
CLUSTER_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

.PHONY: cluster cluster-down cluster-load cluster-api cluster-api-down test-cluster

cluster: ## a real one-node Kubernetes in namespaces of its own (root); kubeconfig in target/cluster/kubeconfig
	@$(CLUSTER_DIR)/cluster.sh up

cluster-down: ## end it and leave nothing behind
	@$(CLUSTER_DIR)/cluster.sh down

cluster-load: ## load image archives into it: make cluster-load IMAGES="a.tar b.tar"
	@$(CLUSTER_DIR)/cluster.sh load $(IMAGES)

cluster-api: ## etcd, API server and controllers only, without root; kubeconfig in target/cluster-api/kubeconfig
	@$(CLUSTER_DIR)/api.sh up

cluster-api-down: ## end them
	@$(CLUSTER_DIR)/api.sh down

test-cluster: ## tests of the embedded cluster itself: versions, images, clean-up also after kill -9
	@$(CLUSTER_DIR)/selftest.sh
