// The shapes that the page's modules share; checked by `make types`, nothing at run time.

/**
 * @typedef {{id: string[], longitude: number[], latitude: number[], cabinet: string[], street: string[],
 *   district: string[], pole: string[], asset_id: string[]}} Lamps in columns, in the order of the state's bytes
 * @typedef {{id: string, kind: string, street: string, latitude: number, longitude: number}} Place
 * @typedef {{id: string, name: string, role: string, now: number, rate: number, zone: string, assets: number, grafana: string | null,
 *   luminaires: Lamps, cabinets: Place[], gauges: Place[]}} City
 * @typedef {{luminaires: number, lit: number, faults: number, mean_level: number, power_kw: number,
 *   rain_1h_mm: number, stale: string[]}} Figures
 * @typedef {{id: string, stale: boolean, age_s: number | null, desired_revision: number | null,
 *   reported_revision: number | null, diverged: string[], wet_road: object[],
 *   status: {online: boolean, clock: string, clock_offset_ms?: number, backlog: number, version: string} | null}} Controller
 * @typedef {{id: number, code: string, severity: 'high' | 'medium' | 'low', object: string, cabinet: string, state: string,
 *   raised: string, cleared: string | null, affected: number, detail: string, assigned: string, acknowledged_by: string,
 *   comment: string, shelved_by: string, shelved_until: string, shelved_reason: string}} Alarm
 * @typedef {{kind: string, id: string}} Target
 * @typedef {{show: (body: HTMLElement, about: string, city: City) => Promise<void>, refresh?: () => Promise<void>}} View
 */

export {};
