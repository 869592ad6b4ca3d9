// Package embedded is a Temporal server inside this process, on a SQLite file: what runs when no Temporal is named. Its
// code is that of a real cluster; only its size differs. The caller sees to it that one process at a time has a folder.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Options say how the server is started.
type Options struct {
	// Folder holds the database and the log. It must exist.
	Folder string
	// Namespace is made when it isn't there.
	Namespace string
	// Attributes are search attributes of type keyword that the namespace has to have.
	Attributes []string
	// Retention is how long what ended is kept; at least a day.
	Retention time.Duration
	// Token is what callers have to show, as `authorization: Bearer <token>`; everybody else is refused.
	Token string
}

// LogName is the name of the server's log in its folder.
const LogName = "temporal.log"

// logLimit is the size from which on the log is begun anew at a start.
const logLimit = 16 << 20

// Server is a running Temporal server.
type Server struct {
	server  temporal.Server
	address string
	started time.Time
}

// Start starts the server and returns once it answers.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Token == "" {
		return nil, errors.New("no token given: the server would let in every user of this machine")
	}
	database, err := openDatabase(o.Folder)
	if err != nil {
		return nil, err
	}
	if err := makeNamespace(database, o); err != nil {
		return nil, err
	}
	logger, err := openLog(filepath.Join(o.Folder, LogName))
	if err != nil {
		return nil, err
	}
	// A free port may be taken by somebody else before the server listens on it.
	for attempt := 1; ; attempt++ {
		s, err := start(ctx, o, database, logger)
		if err == nil {
			return s, nil
		}
		if attempt == 3 || !strings.Contains(err.Error(), "address already in use") {
			return nil, err
		}
	}
}

func start(ctx context.Context, o Options, database *config.SQL, logger log.Logger) (*Server, error) {
	addresses, err := freeAddresses(len(services))
	if err != nil {
		return nil, fmt.Errorf("looking for free ports: %w", err)
	}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for i, service := range services {
		hosts[service] = static.SingleLocalHost(addresses[i].String())
	}
	internal, err := internalTLS()
	if err != nil {
		return nil, fmt.Errorf("making the certificate for the services among themselves: %w", err)
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(serverConfig(database, addresses, internal)),
		temporal.ForServices(serviceNames()),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithDynamicConfigClient(tuning()),
		temporal.WithAuthorizer(authorization.NewDefaultAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return bearer(o.Token) }),
	)
	if err != nil {
		return nil, fmt.Errorf("putting the server together: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	s := &Server{server: server, address: addresses[0].String(), started: time.Now()}
	if err := s.ready(ctx, o); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return s, nil
}

// ready waits until the server answers, and sees to it that the namespace is as asked.
func (s *Server) ready(ctx context.Context, o Options) error {
	connection, err := grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.Token), 10*time.Second)
	defer cancel()
	return EnsureAttributes(ctx, operatorservice.NewOperatorServiceClient(connection), o.Namespace, o.Attributes)
}

// Address is the frontend's `host:port`, on loopback.
func (s *Server) Address() string { return s.address }

// Started is when it was up.
func (s *Server) Started() time.Time { return s.started }

// Stop stops the server.
func (s *Server) Stop() error { return s.server.Stop() }

// freeAddresses are loopback addresses with ports that nobody has at the moment.
func freeAddresses(count int) ([]*net.TCPAddr, error) {
	var addresses []*net.TCPAddr
	for range count {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = listener.Close() }() // only once all are found, so that they differ
		addresses = append(addresses, listener.Addr().(*net.TCPAddr))
	}
	return addresses, nil
}

// openLog makes the server write warnings and errors into a file, never onto the terminal.
func openLog(path string) (log.Logger, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Truncate(path, 0); err != nil {
			return nil, fmt.Errorf("beginning the log anew: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	if err := file.Close(); err != nil { // it was opened only to have its mode and any error
		return nil, err
	}
	return log.NewZapLogger(log.BuildZapLogger(log.Config{Level: "warn", OutputFile: path})), nil
}
