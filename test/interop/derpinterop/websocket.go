package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/coder/websocket"
	"tailscale.com/derp"
	"tailscale.com/net/wsconn"
	"tailscale.com/types/key"
)

// dialWebSocket connects as derphttp does in browsers.
func (r *relay) dialWebSocket(private key.NodePrivate) (*peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	url := strings.Replace(r.url, "http", "ws", 1)
	socket, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"derp"}})
	if err != nil {
		return nil, err
	}
	if socket.Subprotocol() != "derp" {
		return nil, fmt.Errorf("subprotocol %q", socket.Subprotocol())
	}
	conn := wsconn.NetConn(context.Background(), socket, websocket.MessageBinary, url)
	brw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	client, err := derp.NewClient(private, conn, brw, func(string, ...any) {}, derp.AppName("derpinterop"))
	if err != nil {
		conn.Close()
		return nil, err
	}
	p := &peer{Client: client, private: private, conn: conn,
		inbox: make(chan derp.ReceivedMessage, 1<<15), ended: make(chan struct{})}
	go p.read()
	if _, err := next[derp.ServerInfoMessage](p); err != nil {
		conn.Close()
		return nil, fmt.Errorf("waiting for ServerInfo: %w", err)
	}
	return p, nil
}

func checkWebSocket(r *relay) error {
	p, err := r.dialWebSocket(r.identity(0))
	if err != nil {
		return err
	}
	q, err := r.dialWebSocket(r.identity(1))
	if err != nil {
		return err
	}
	plain, err := r.dial(r.identity(2), dialOption{})
	if err != nil {
		return err
	}
	peers := []*peer{p, q, plain}
	defer hangUp(peers)
	// derper takes no message over 32 KiB; Go's client writes what its buffer of 4 KiB does not hold as it is.
	for _, size := range []int{0, 1, 1280, 4096, 30_000} {
		data := bytes.Repeat([]byte{byte(size), 0x5a}, size/2+1)[:size]
		for _, pair := range [][2]*peer{{p, q}, {q, p}, {p, plain}, {plain, p}} {
			if err := exchange(pair[0], pair[1], data); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
	}
	return nil
}
