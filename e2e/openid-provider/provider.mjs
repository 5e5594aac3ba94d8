// An OpenID provider (npm's oidc-provider) for the scenario login: it lets everybody log in by any name.
//
//   node provider.mjs ISSUER REDIRECT_URI POST_LOGOUT_REDIRECT_URI
//
// ISSUER is http://ADDRESS:PORT, where it listens. Each start has new keys, and no sessions.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const [issuer, redirectUri, postLogoutRedirectUri] = process.argv.slice(2);
const { hostname, port } = new URL(issuer);
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const kid = `key-${Date.now()}`;

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES256' }] },
  clients: [{
    client_id: 'shop',
    client_secret: 'the-secret-of-the-shop',
    redirect_uris: [redirectUri],
    post_logout_redirect_uris: [postLogoutRedirectUri],
    grant_types: ['authorization_code', 'refresh_token'],
    id_token_signed_response_alg: 'ES256',
  }],
  claims: { openid: ['sub'], email: ['email'] },
  // Otherwise only userinfo has them.
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@users.example` }) }),
  pkce: { required: () => true },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  // Short, so that the scenario sees refreshes.
  ttl: { AccessToken: 3, IdToken: 600, RefreshToken: 600, Session: 600, Grant: 600, Interaction: 600 },
  cookies: { keys: [kid] },
});
provider.listen(Number(port), hostname, () => console.log('ready'));
