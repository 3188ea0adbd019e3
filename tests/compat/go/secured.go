package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// secured is where the encrypted listeners are (SASL_SSL, SSL), and the directory of certificates.
func secured() ([]string, error) {
	told, err := asked("secured")
	return strings.Fields(told), err
}

// encrypted trusts an authority and, if it has one, shows a certificate.
func encrypted(address, authority string, shown ...tls.Certificate) ([]kgo.Opt, error) {
	text, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + authority)
	}
	config := &tls.Config{RootCAs: pool, Certificates: shown}
	return []kgo.Opt{kgo.SeedBrokers(address), kgo.DialTLSConfig(config)}, nil
}

// roundTrip sends, reads back in a group, and asks whom the broker takes the connections for.
func roundTrip(topic, user string, options []kgo.Opt) error {
	ctx, cancel := patience()
	defer cancel()
	to := client(options...)
	defer to.Close()
	if _, err := kadm.NewClient(to).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		return err
	}
	sent := records(topic, 50)
	if err := send(to, sent); err != nil {
		return err
	}
	group := []kgo.Opt{kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	reader := client(append(group, options...)...)
	defer reader.Close()
	read, err := next(reader, len(sent))
	if err != nil {
		return err
	}
	if err := same(read, sent); err != nil {
		return err
	}
	return ask("caller " + user)
}

// refusal is what a client gets that is not let in.
func refusal(options []kgo.Opt) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	made := client(append(options, kgo.RequestRetries(0))...)
	defer made.Close()
	err := made.Ping(ctx)
	if err == nil {
		return errors.New("let in")
	}
	return err
}

func saslSSL() error {
	places, err := secured()
	if err != nil {
		return err
	}
	options, err := encrypted(places[0], places[2]+"/ca.pem")
	if err != nil {
		return err
	}
	for name, mechanism := range map[string]func(string) sasl.Mechanism{
		"PLAIN": func(password string) sasl.Mechanism { return plain.Auth{User: "alice", Pass: password}.AsMechanism() },
		"SCRAM-SHA-256": func(password string) sasl.Mechanism {
			return scram.Auth{User: "alice", Pass: password}.AsSha256Mechanism()
		},
		"SCRAM-SHA-512": func(password string) sasl.Mechanism {
			return scram.Auth{User: "alice", Pass: password}.AsSha512Mechanism()
		},
	} {
		login := func(password string) []kgo.Opt {
			return append([]kgo.Opt{kgo.SASL(mechanism(password))}, options...)
		}
		if err := roundTrip("secured-"+name, "User:alice", login("correct horse battery")); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := refusal(login("wrong")); !errors.Is(err, kerr.SaslAuthenticationFailed) {
			return fmt.Errorf("%s with a wrong password: %w", name, err)
		}
	}
	return nil
}

func mutualTLS() error {
	places, err := secured()
	if err != nil {
		return err
	}
	shown, err := tls.LoadX509KeyPair(places[2]+"/client.crt", places[2]+"/client.key")
	if err != nil {
		return err
	}
	options, err := encrypted(places[1], places[2]+"/ca.pem", shown)
	if err != nil {
		return err
	}
	if err := roundTrip("secured-by-certificate", "User:CN=press4", options); err != nil {
		return err
	}
	others, err := encrypted(places[1], places[2]+"/client.crt", shown)
	if err != nil {
		return err
	}
	var unknown x509.UnknownAuthorityError
	if err := refusal(others); !errors.As(err, &unknown) {
		return fmt.Errorf("who trusts others: %w", err)
	}
	return nil
}
