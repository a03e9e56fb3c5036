// TLS for JavaScript: certificates of listeners, trusted roots, and connections that JavaScript reads and writes.
#pragma once

#include <napi.h>

#include <memory>

#include "../tls/tls_client.h"
#include "../tls/tls_server.h"
#include "../tls/tls_session.h"

namespace derplane {

// Constructors that C++ calls, one set per environment.
struct TlsConstructors {
  Napi::FunctionReference server;
  Napi::FunctionReference session;
};

class TlsServerWrap final : public Napi::ObjectWrap<TlsServerWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  // What a value holds; null when it is something else.
  static std::shared_ptr<TlsServer> from(const Napi::Value& value);
  explicit TlsServerWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value set(const Napi::CallbackInfo& info);
  Napi::Value remove(const Napi::CallbackInfo& info);
  Napi::Value setChallenge(const Napi::CallbackInfo& info);
  Napi::Value removeChallenge(const Napi::CallbackInfo& info);
  Napi::Value expect(const Napi::CallbackInfo& info);
  Napi::Value unexpect(const Napi::CallbackInfo& info);
  Napi::Value setMeta(const Napi::CallbackInfo& info);
  Napi::Value removeMeta(const Napi::CallbackInfo& info);

  std::shared_ptr<TlsServer> server_;
};

class TlsClientWrap final : public Napi::ObjectWrap<TlsClientWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit TlsClientWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value connect(const Napi::CallbackInfo& info);

  std::unique_ptr<TlsClient> client_;
};

class TlsSessionWrap final : public Napi::ObjectWrap<TlsSessionWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value make(Napi::Env env, std::unique_ptr<TlsSession> session);
  // Takes the session out of a value; null when there is none. The JavaScript object is of no use afterwards.
  static std::unique_ptr<TlsSession> takeFrom(const Napi::Value& value);
  explicit TlsSessionWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value handshake(const Napi::CallbackInfo& info);
  Napi::Value receive(const Napi::CallbackInfo& info);
  Napi::Value send(const Napi::CallbackInfo& info);
  Napi::Value takeOutput(const Napi::CallbackInfo& info);
  Napi::Value shutdown(const Napi::CallbackInfo& info);
  Napi::Value peerCertificates(const Napi::CallbackInfo& info);
  Napi::Value getEstablished(const Napi::CallbackInfo& info);
  Napi::Value getEnded(const Napi::CallbackInfo& info);
  Napi::Value getVersion(const Napi::CallbackInfo& info);
  bool present(Napi::Env env);
  void throwFailure(Napi::Env env);

  std::unique_ptr<TlsSession> session_;
};

}  // namespace derplane
