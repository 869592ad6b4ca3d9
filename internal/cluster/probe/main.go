//go:build linux

// Command probe is what the cluster's own test runs in pods: it serves, asks, mounts, and waits.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// token is where a pod finds whom it is to the API server.
const token = "/var/run/secrets/kubernetes.io/serviceaccount/token"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) != 2 {
		return errors.New("serve ADDRESS | get URL | dial ADDRESS | mount FOLDER | unmount FOLDER | list FOLDER")
	}
	switch what := arguments[1]; arguments[0] {
	case "serve":
		return serve(ctx, what)
	case "get":
		return get(ctx, what)
	case "dial":
		connection, err := net.DialTimeout("tcp", what, 3*time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	case "mount":
		if err := os.MkdirAll(what, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("probe", what, "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.WriteFile(what+"/mounted", nil, 0o644)
	case "unmount":
		if err := syscall.Unmount(what, 0); err != nil {
			return err
		}
		return os.Remove(what)
	case "list":
		entries, err := os.ReadDir(what)
		for _, entry := range entries {
			fmt.Println(entry.Name())
		}
		return err
	}
	return fmt.Errorf("%s is nothing that it does", arguments[0])
}

func serve(ctx context.Context, address string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	server := &http.Server{Addr: address, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s serves %s\n", host, r.RemoteAddr)
	})}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if strings.HasPrefix(url, "https:") {
		mine, err := os.ReadFile(token)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+string(mine))
	}
	// It only asks whether there is a way.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	answer, err := (&http.Client{Timeout: 3 * time.Second, Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}
