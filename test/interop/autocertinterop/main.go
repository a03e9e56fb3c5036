// Command autocertinterop keeps certificates in a folder as derper does: with Go's autocert.
//
//	autocertinterop read DIR HOST    prints what autocert finds in the folder: a line of JSON
//	autocertinterop get DIR HOST     prints the port at which it answers TLS-ALPN-01, reads the URL of
//	                                 an ACME directory from standard input, and prints what it got there
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// leaves holds the SHA-256 of the certificates that clients with and without ECDSA are served.
type leaves struct {
	EC  string `json:"ec"`
	RSA string `json:"rsa"`
}

// nowhere is a directory that nobody serves: what is not in the folder cannot be had.
const nowhere = "http://127.0.0.1:1/"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: autocertinterop read|get DIR HOST")
	}
	command, dir, host := os.Args[1], os.Args[2], os.Args[3]
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist(host),
		Cache:      autocert.DirCache(dir),
		Client:     &acme.Client{DirectoryURL: nowhere},
	}
	if command == "get" {
		manager.Client.DirectoryURL = serve(manager)
	}
	found := leaves{EC: leaf(manager, host, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)}
	if _, err := os.Stat(dir + "/" + host + "+rsa"); err == nil || command == "get" {
		found.RSA = leaf(manager, host, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
	}
	json.NewEncoder(os.Stdout).Encode(found)
}

// serve answers validations on a port that it prints, and returns the directory it reads.
func serve(manager *autocert.Manager) string {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", manager.TLSConfig())
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				// The validation is over with the handshake.
				conn.(*tls.Conn).Handshake()
			}()
		}
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		log.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func leaf(manager *autocert.Manager, host string, suite uint16) string {
	cert, err := manager.GetCertificate(&tls.ClientHelloInfo{ServerName: host, CipherSuites: []uint16{suite}})
	if err != nil {
		log.Fatal(err)
	}
	sum := sha256.Sum256(cert.Certificate[0])
	return hex.EncodeToString(sum[:])
}
