package embedded

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// statements takes down a schema: it stands in for a database whose schema is set up.
type statements struct {
	sqlplugin.AdminDB // never asked for anything but Exec
	all               []string
}

func (s *statements) Exec(statement string, _ ...any) error {
	s.all = append(s.all, statement)
	return nil
}

// schema is the schema of this version of the server, and a short hash of it.
func schema() (all []string, hash string, err error) {
	var s statements
	if err := sqliteschema.SetupSchemaOnDB(&s); err != nil {
		return nil, "", fmt.Errorf("reading the database schema: %w", err)
	}
	sum := sha256.New()
	for _, statement := range s.all {
		sum.Write([]byte(statement))
		sum.Write([]byte{0})
	}
	return s.all, hex.EncodeToString(sum.Sum(nil)[:4]), nil
}

// openDatabase makes sure that there is a database of this server's schema and says how to open it. Temporal has no
// migrations for SQLite and opens an older file without a word, missing tables: so the schema is part of the file's name,
// and a new one begins a new file. What became of runs is in their folders, outside of it.
func openDatabase(folder string) (*config.SQL, error) {
	all, hash, err := schema()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "temporal-"+hash+".db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := makeDatabase(path, all); err != nil {
			return nil, fmt.Errorf("making the database %s: %w", path, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("looking for the database: %w", err)
	}
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: path,
		// With more than one connection "database is locked" floods the log, WAL or not.
		MaxConns:     1,
		MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode":         "rw",
			"journal_mode": "wal",
			"synchronous":  "normal",
			"busy_timeout": "10000",
		},
	}, nil
}

// makeDatabase makes the tables in a file beside and renames it, so that a kill leaves no half-made database.
func makeDatabase(path string, schema []string) error {
	temp := path + ".new"
	for _, leftover := range []string{temp, temp + "-journal"} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := fill(temp, schema); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func fill(path string, schema []string) (err error) {
	db, err := sql.Open("sqlite", "file:"+path) // the driver of the server's plugin
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	for _, statement := range schema {
		if _, err := tx.Exec(statement); err != nil {
			return errors.Join(fmt.Errorf("%q: %w", statement, err), tx.Rollback())
		}
	}
	return tx.Commit()
}

// makeNamespace makes the namespace when it isn't there.
func makeNamespace(database *config.SQL, o Options) error {
	attributes := map[string]enumspb.IndexedValueType{}
	for _, name := range o.Attributes {
		attributes[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	namespace, err := sqliteschema.NewNamespaceConfig(clusterName, o.Namespace, false, attributes)
	if err != nil {
		return fmt.Errorf("describing namespace %s: %w", o.Namespace, err)
	}
	namespace.Detail.Config.Retention = durationpb.New(max(o.Retention, 24*time.Hour))
	if err := sqliteschema.CreateNamespaces(database, namespace); err != nil {
		return fmt.Errorf("making namespace %s: %w", o.Namespace, err)
	}
	return nil
}

// EnsureAttributes adds the search attributes, keywords all, that a namespace lacks: they are set when it is made, and it
// may have been made by an earlier version.
func EnsureAttributes(ctx context.Context, operator operatorservice.OperatorServiceClient, namespace string, names []string) error {
	there, err := operator.ListSearchAttributes(ctx,
		&operatorservice.ListSearchAttributesRequest{Namespace: namespace}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("listing the search attributes of namespace %s: %w", namespace, err)
	}
	missing := map[string]enumspb.IndexedValueType{}
	for _, name := range names {
		if _, ok := there.GetCustomAttributes()[name]; !ok {
			missing[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = operator.AddSearchAttributes(ctx,
		&operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	if err != nil {
		return fmt.Errorf("adding search attributes to namespace %s: %w", namespace, err)
	}
	return nil
}
