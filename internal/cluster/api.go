//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// api speaks with the API server as the cluster's administrator.
type api struct {
	url    string
	client *http.Client
}

func (c *cluster) api() (*api, error) {
	certificate, err := tls.LoadX509KeyPair(c.path("keys", "admin.crt"), c.path("keys", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("reading the administrator's key: %w", err)
	}
	authority, err := os.ReadFile(c.path("keys", "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &api{url: c.API(), client: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: pool, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 16,
		},
	}}, nil
}

// call asks for something and reads the answer into out, unless that is nil.
func (a *api) call(ctx context.Context, method, path string, body, out any) (status int, err error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, sent)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := a.client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("asking the API server: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return answer.StatusCode, err
	}
	if answer.StatusCode >= 300 {
		return answer.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	if out == nil {
		return answer.StatusCode, nil
	}
	return answer.StatusCode, json.Unmarshal(text, out)
}

func (a *api) get(ctx context.Context, path string, out any) error {
	_, err := a.call(ctx, http.MethodGet, path, nil, out)
	return err
}

// node is what is read of a node.
type node struct {
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Status struct {
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// ready says whether a node takes pods, and else why not.
func (n node) ready() (bool, string) {
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", condition.Message
		}
	}
	return false, "it has said nothing of itself yet"
}

func (a *api) nodes(ctx context.Context) (map[string]node, error) {
	var list struct {
		Items []node `json:"items"`
	}
	if err := a.get(ctx, "/api/v1/nodes", &list); err != nil {
		return nil, err
	}
	nodes := make(map[string]node, len(list.Items))
	for _, n := range list.Items {
		nodes[n.Metadata.Name] = n
	}
	return nodes, nil
}

// renewed is when a node's kubelet last said that it lives.
func (a *api) renewed(ctx context.Context, node string) (time.Time, error) {
	var lease struct {
		Spec struct {
			RenewTime time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	err := a.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+node, &lease)
	return lease.Spec.RenewTime, err
}
