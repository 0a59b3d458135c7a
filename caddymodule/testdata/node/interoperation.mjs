// Tries openid-client, oauth4webapi and jose against a running issuer. Any
// failed assertion, and any answer that one of them does not accept, ends it.
import assert from 'node:assert/strict'
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import * as client from 'openid-client'

const { ISSUER, ACCESS_KEY, SECRET_KEY, API_KEY, RESOURCE } = process.env
const issuer = new URL(ISSUER)
const insecure = { [oauth.allowInsecureRequests]: true } // loopback without TLS

async function verified(token, audience) {
  const keys = jose.createRemoteJWKSet(new URL('/.well-known/jwks.json', issuer))
  const { payload, protectedHeader } = await jose.jwtVerify(token, keys, { issuer: ISSUER, audience, typ: 'at+jwt', algorithms: ['EdDSA'] })
  assert.equal(payload.client_id, ACCESS_KEY)
  assert.ok(protectedHeader.kid && payload.jti && payload.sub && payload.org && payload.gen)
  return payload
}

async function withOpenidClient(authentication) {
  const config = await client.discovery(issuer, ACCESS_KEY, SECRET_KEY, authentication, {
    algorithm: 'oauth2', execute: [client.allowInsecureRequests],
  })
  const tokens = await client.clientCredentialsGrant(config, { scope: 'hello:read' })
  assert.equal(tokens.token_type, 'bearer') // openid-client folds it
  assert.equal(tokens.scope, 'hello:read')
  assert.equal(tokens.expires_in, 900)
  await verified(tokens.access_token, ISSUER)

  const both = await client.clientCredentialsGrant(config, new URLSearchParams([['resource', RESOURCE], ['resource', ISSUER]]))
  const payload = await verified(both.access_token, RESOURCE)
  assert.deepEqual(payload.aud, [ISSUER, RESOURCE].sort())

  const known = await client.tokenIntrospection(config, tokens.access_token, { token_type_hint: 'access_token' })
  assert.equal(known.active, true)
  assert.equal(known.scope, 'hello:read')
  assert.equal(known.client_id, ACCESS_KEY)
  assert.equal(known.iss, ISSUER)
  assert.equal((await client.tokenIntrospection(config, API_KEY)).active, true)

  await client.tokenRevocation(config, tokens.access_token)
  await client.tokenRevocation(config, tokens.access_token) // again is no error
  await client.tokenRevocation(config, 'nonsense')
  assert.deepEqual(await client.tokenIntrospection(config, tokens.access_token), { active: false })
  assert.equal((await client.tokenIntrospection(config, both.access_token)).active, true)

  await assert.rejects(client.clientCredentialsGrant(config, { scope: 'hello:delete' }), { error: 'invalid_scope' })
  await assert.rejects(client.clientCredentialsGrant(config, { resource: 'https://x.example' }), { error: 'invalid_target' })
  await assert.rejects(client.tokenRevocation(config, API_KEY), { error: 'unsupported_token_type' })
}

async function withOauth4webapi() {
  const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }))
  assert.deepEqual(as.introspection_endpoint_auth_methods_supported, ['client_secret_basic', 'client_secret_post', 'Bearer'])
  assert.deepEqual(as.revocation_endpoint_auth_methods_supported, ['client_secret_basic', 'client_secret_post'])
  const me = { client_id: ACCESS_KEY }
  for (const authentication of [oauth.ClientSecretBasic(SECRET_KEY), oauth.ClientSecretPost(SECRET_KEY)]) {
    const grant = async (parameters) => oauth.processClientCredentialsResponse(as, me,
      await oauth.clientCredentialsGrantRequest(as, me, authentication, new URLSearchParams(parameters), insecure))
    const introspect = async (token) => oauth.processIntrospectionResponse(as, me,
      await oauth.introspectionRequest(as, me, authentication, token, insecure))
    const { access_token: token } = await grant({})
    const request = new Request(new URL('/', issuer), { headers: { authorization: `Bearer ${token}` } })
    const claims = await oauth.validateJwtAccessToken(as, request, ISSUER, insecure) // RFC 9068
    assert.equal(claims.scope, 'hello:read hello:write')
    const answer = await introspect(token)
    assert.equal(answer.active, true)
    assert.equal(answer.sub, claims.sub)
    assert.equal(answer.jti, claims.jti)
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, me, authentication, token, insecure))
    assert.equal((await introspect(token)).active, false)
  }
  const denied = await oauth.clientCredentialsGrantRequest(as, me, oauth.ClientSecretBasic('x'.repeat(43)), new URLSearchParams(), insecure)
  await assert.rejects(oauth.processClientCredentialsResponse(as, me, denied), (error) =>
    (error.error ?? error.cause?.[0]?.parameters?.error ?? error.code) !== undefined && denied.status === 401)
}

await withOpenidClient(client.ClientSecretBasic(SECRET_KEY))
await withOpenidClient(client.ClientSecretPost(SECRET_KEY))
await withOauth4webapi()
console.log('openid-client, oauth4webapi and jose agree')
