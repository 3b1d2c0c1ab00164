title = Duha, { $city }
map = Mapa města
skip = Přejít na závady
sign-in = Přihlášení
sign-in-help = Token vypsal backend při prvním spuštění.
sign-in-do = Přihlásit
sign-in-wrong = Takový token neexistuje.
sign-out = Odhlásit
token = Token
language = English
no-map = Tento prohlížeč nemá WebGL 2: mapa chybí, seznamy a grafy fungují.
live = ● živě
lost = ○ bez spojení
figure-lit = svítí z { $total }
figure-level = střední úroveň
figure-power = příkon
figure-problems = závady
figure-rain = nejvíce srážek za 1 h
figure-controllers = rozvaděče ve spojení
legend-off = nesvítí
legend-low = ztlumeno
legend-full = plné světlo
legend-failure = porucha, neplní povel
legend-lost = neodpovídá, bez dat
state-unknown = zatím bez údajů
state-not_networked = bez dálkové správy
state-stale = rozvaděč neposílá data
state-no_answer = neodpovídá
state-diverged = neplní povel
state-lamp_failure = porucha zdroje
state-lit = svítí
state-off = nesvítí
luminaire = Svítidlo
pick = Kliknutím na svítidlo v mapě zjistíte, co dostalo za povel, co platí, jak svítí a proč.
commanded = povel
in-effect = platí
actual = skutečnost
why = Proč
reason-emergency = mimořádná událost do { $until }: { $name }
reason-override = ručně { $level } do { $until }{ $name }
reason-wet_road = mokrá vozovka: zvýšeno na { $level } do { $until }
reason-traffic = provoz: { $level } do { $until }
reason-motion = pohyb: { $level } do { $until }
reason-dark = čidlo vidí tmu ({ $name })
reason-bright = čidlo vidí světlo ({ $name })
reason-programme = program { $name }, krok { $step }: { $level } do { $until }
reason-daylight = den: program { $name } ještě nezačal
reason-default = bez programu: svítí od západu do východu slunce
facts = { $power }, { $temperature }, provoz { $hours }, údaj starý { $age }
dim-title = Ruční ztlumení a rozsvícení
dim-target = Co
dim-level = Úroveň
dim-until = Do
dim-reason = Důvod
dim-do = Nastavit do této doby
target-city = celé město
target-cabinet = rozvaděč { $id }
target-group = skupina { $name }
target-street = ulice { $id }
target-luminaire = svítidlo { $id }
override-line = { $target }: { $level } do { $until }
override-pending = čeká
override-applied = platí
override-diverged = { $count ->
    [one] { $count } neplní
    [few] { $count } neplní
   *[other] { $count } neplní
}
override-expired = skončilo
override-cancelled = zrušeno
cancel = Ukončit
problems = Závady
problems-said = { $count ->
    [one] { $count } závada
    [few] { $count } závady
    [many] { $count } závady
   *[other] { $count } závad
}
col-what = Co
col-who = Svítidlo
col-where = Ulice
all-well = Všechno je v pořádku.
cabinet-stale = rozvaděč { $id }: { $age } bez dat
rain = Srážky za poslední 2 hodiny, mm za 5 minut, a jejich úhrn
gauge-total = celkem { $total }
gauge-silent = mlčí

runoff = Odtok
watch-stage = { $value } · SPA { $stage }
watch-ahead = SPA { $stage } za { $minutes } min: { $member }
watch-calm = žádný stupeň není na dohled
watch-failed = model neběží
member-dry = i když přestane pršet
member-persistence = bude-li pršet dál
member-more = zesílí-li déšť o polovinu
member-design = přijde-li návrhový déšť
